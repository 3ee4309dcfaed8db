"""What the program is made of besides its own code, from uv.lock: licences, a bill of materials, an audit.

`python -m supply licences` writes docs/licences.md, `sbom` a bill of materials, `requirements` what pip
installs, and `audit` asks for known vulnerabilities.
"""
