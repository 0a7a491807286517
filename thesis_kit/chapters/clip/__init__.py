"""Chapter 6, CLIP: what changes when the teacher is language."""
