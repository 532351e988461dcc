"""Tier tables of exchanges and tools (JSON) → tier-table CSV."""
