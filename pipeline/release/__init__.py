"""What application teams get: packing, manifest and verification. Rule: every file here is made from the manifest."""
