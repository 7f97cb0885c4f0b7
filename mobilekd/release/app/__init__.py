"""What an app developer needs of a bundle: an AI pack, code with the bundle's own numbers, golden pairs."""
