"""Frozen values of the OCI and Docker formats: digests, references, descriptors, manifests, configurations."""
