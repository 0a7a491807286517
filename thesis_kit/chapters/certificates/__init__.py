"""Chapter 2, Broken certificates: what a certificate means, and what it does not."""
