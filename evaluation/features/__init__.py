"""Features of images: extracted by batches, and stored so that a stopped extraction resumes."""
