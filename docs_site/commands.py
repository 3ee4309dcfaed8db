"""The command line's reference: the help of every command, as a page of Markdown."""

import re

from cyclopts import App

_HEAD = """# Command line

This is what `--help` says of each command, as a page. Settings come from flags, the environment and a file,
as [Configuration](configuration.md) tells. [Errors](errors.md#exit-codes-of-the-command-line) has the exit
codes.
"""


def reference(app: App) -> str:
    """The page of a program: every command, however deep, with its arguments, options and examples."""
    text = app.generate_docs(
        output_format="markdown", recursive=True, max_heading_level=4, usage_name=app.name[0]
    )
    text = re.sub(r"\A# .*\n", _HEAD, text)
    # Usage names the program that runs; of `python -m docs_site` this much would be left.
    text = re.sub(r"^(```console\n.*?) -m [\w.]+", r"\1", text, flags=re.MULTILINE)
    # Every page of the site has a table of its headings.
    text = re.sub(r"^## Table of Contents\n.*?(?=^\*\*|^## )", "", text, flags=re.MULTILINE | re.DOTALL)
    # Examples stand indented in the help, for a terminal.
    return re.sub(r"^For example:\n\n((?:    .*\n)+)", _example, text, flags=re.MULTILINE)


def _example(found: re.Match[str]) -> str:
    return "For example:\n\n```sh\n" + re.sub(r"^    ", "", found[1], flags=re.MULTILINE) + "```\n"
