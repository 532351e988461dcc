"""Where the addends are computed; no executor knows a formula."""
