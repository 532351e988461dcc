"""Public archives and interfaces of exchanges → local files, resumable and checked."""
