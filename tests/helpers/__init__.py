"""What several folders of tests share: small models, texts, runs and notebooks, built on the spot."""
