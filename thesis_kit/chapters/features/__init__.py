"""Chapter 5, ViT features: where, and on what, a ViT looks."""
