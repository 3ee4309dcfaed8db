"""`python -m auditplane` is the command `auditplane`."""

from auditplane.cli import main

if __name__ == "__main__":
    main()
