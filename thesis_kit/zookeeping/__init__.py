"""How the zoo is kept: its recipes, the making of a member, and its scores."""
