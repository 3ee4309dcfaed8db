"""Auditplane: an audit-trail server that serves the audit-events API."""

__version__ = "0.1.0"
