"""Attacks one parser in this process, guided by atheris where there is one: `python -m torture.fuzzing`."""

import os
import random
import sys
from pathlib import Path
from typing import Final, NoReturn

from torture import inputs
from torture.inputs import Mutator, Outcome, Parser

MEMORY_MIB_MAX: Final = 2_048
OWN_SHARE: Final = 0.6  # of the changes; the others are those of atheris


def main(folder: Path, name: str, count: int = 0, seed: int = 0) -> None:
    """Feeds a parser so many inputs, or large ones for none, and leaves what came of it in a folder."""
    if not count or not inputs.has_atheris():
        from torture.parsers import parsers  # noqa: PLC0415 - see below

        with parsers() as known:
            parser = known[name]
            outcome = inputs.attacked(parser, parser.due(count), seed) if count else inputs.large(parser)
        outcome.write(folder)
        return
    import atheris  # noqa: PLC0415 - there is none for some versions of Python

    # What of the project is imported here is watched.
    with atheris.instrument_imports(include=["auditplane"]):
        from torture.parsers import parsers  # noqa: PLC0415
    with parsers() as known:
        _fuzz(known[name], known[name].due(count), seed, folder)


def _fuzz(parser: Parser, count: int, seed: int, folder: Path) -> NoReturn:
    """Has atheris choose inputs; it never comes back."""
    import atheris  # noqa: PLC0415

    outcome, chosen = Outcome(), random.Random(seed)
    mutator = Mutator(parser, chosen)

    def change(data: bytes, bytes_max: int, _seed: int) -> bytes:
        if chosen.random() > OWN_SHARE:
            return bytes(atheris.Mutate(data, bytes_max))
        return (mutator.changed(data) if chosen.random() < OWN_SHARE else mutator.new())[:bytes_max]

    def feed(data: bytes) -> None:
        outcome.feed(parser, data)
        if outcome.tried == count:
            outcome.write(folder)
            os._exit(0)

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, example in enumerate(parser.examples):
        (corpus / str(number)).write_bytes(example)
    options = [
        f"-seed={seed}", f"-max_len={parser.bytes_max}", f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-artifact_prefix={folder}/", "-verbosity=0", "-detect_leaks=0",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], feed, custom_mutator=change)
    atheris.Fuzz()
    raise RuntimeError("atheris has ended before its time")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
