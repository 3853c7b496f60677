"""Classical heads: what they are, and how they are fitted on features."""
