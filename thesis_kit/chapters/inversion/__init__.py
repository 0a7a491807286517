"""Chapter 4, Plug-In Inversion: what a class looks like to any network."""
