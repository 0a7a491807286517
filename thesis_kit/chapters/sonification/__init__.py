"""Chapter 7, Sonification: what a speech recognizer hears, layer by layer."""
