"""The embedded engine: one SQLite database an account, in one folder.

The newest events stand in the tail, one row each. When it holds enough, its oldest are sealed into blocks,
rendered once and compressed, that answers are made of without touching a single event. See
`docs/architecture.md`.
"""
