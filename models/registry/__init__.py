"""Which systems there are, and how their studies used them."""
