"""One module per file format of an exchange or tool: how its files are opened as columns."""
