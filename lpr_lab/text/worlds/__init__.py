"""Text of small worlds: languages whose likeness to one another is known because it was made."""
