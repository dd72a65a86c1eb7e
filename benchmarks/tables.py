"""The tables of docs/results/performance.md, from the results.

    python -m benchmarks.tables [--write docs/results/performance.md]

Prints them; --write puts each between its markers, `<!-- serving -->` and `<!-- /serving -->`, and leaves alone those
of which there is no result. benchmarks.train_tables and benchmarks.serving_tables print their own.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import serving_tables, summary, train_tables
from benchmarks.markdown import RESULTS, Tables, between, made, marked, show
from benchmarks.sources import how_to_fetch

PEERS = "peers"  # of no result: the commands that fetch them
TABLES: Tables = {**summary.TABLES, **serving_tables.TABLES, **train_tables.TABLES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", type=Path, help="a document with markers")
    args = parser.parse_args()
    if args.write is None:
        show(TABLES, args.results)
        return
    texts = made(TABLES, args.results) | {PEERS: how_to_fetch()}
    if not args.write.is_file():
        parser.error(f"there is no {args.write}")
    document = args.write.read_text(encoding="utf-8")
    names = marked(document)
    if strange := [name for name in names if name not in (*TABLES, PEERS)]:
        parser.error(f"{args.write} has a place for {', '.join(strange)}; there are {', '.join((*TABLES, PEERS))}")
    for name in names:
        if name in texts:
            try:
                document = between(document, name, texts[name])
            except ValueError as error:
                parser.error(f"{args.write}: {error}")
    args.write.write_text(document, encoding="utf-8")
    lacking = [name for name in names if name not in texts]
    left = f"; left as they are, for there is no result: {', '.join(lacking)}" if lacking else ""
    print(f"{args.write}: {len(names) - len(lacking)} tables{left}")


if __name__ == "__main__":
    main()
