"""One scoring job, from opening its inputs to its report: resumable features, metric values, shards and merging."""
