"""`verify FILE.zip`: checks a file of evidence."""

from auditplane.errors import InvalidConfig, ProofError


def verify_file(file: str, *, key: str | None) -> None:
    """Prints what a file of evidence proves and what it does not.

    `key` is the verifier key of the log, or a file that it is in. Raises ProofError when anything does not
    hold, and InvalidConfig when there is no such file or that is no key.
    """
    from auditplane.evidence import verify

    try:
        report = verify.check(file, key)
    except verify.Misused as error:
        raise InvalidConfig(str(error)) from None
    print("\n".join(report.lines()))
    if report.wrong:
        raise ProofError(*report.wrong)
