"""Chapter 3, Regularization: robustness without adversarial examples, or only the look of it."""
