"""What a registry refuses, by the codes of the distribution-spec ("Error Codes")."""

from __future__ import annotations

from boxship.errors import BoxshipError, Invalid, NotFound, Unavailable


class NameUnknown(NotFound):
    """Raised for a repository that is not there."""


class NameInvalid(Invalid):
    """Raised for what is no repository's name."""


class ManifestUnknown(NotFound):
    """Raised for a manifest or tag that the repository does not have."""


class ManifestInvalid(Invalid):
    """Raised for a manifest that is malformed, or not what it was sent as."""


class ManifestBlobUnknown(NotFound):
    """Raised for a manifest that names what the repository does not have."""


class BlobUnknown(NotFound):
    """Raised for a blob that the repository does not have."""


class UploadUnknown(NotFound):
    """Raised for an upload that is not, or has expired."""


class UploadInvalid(Invalid):
    """Raised for an upload that cannot go on."""


class DigestInvalid(Invalid):
    """Raised where content is not what its digest says, or the digest is none."""


class SizeInvalid(Invalid):
    """Raised for more than is taken."""


class PaginationInvalid(Invalid):
    """Raised for a page of a list that cannot be."""


class TooManyRequests(Unavailable):
    """Raised where there is no room for another upload; trying again later may help."""


CODES: tuple[tuple[type[BoxshipError], str, int], ...] = (
    (NameUnknown, "NAME_UNKNOWN", 404),
    (NameInvalid, "NAME_INVALID", 400),
    (ManifestUnknown, "MANIFEST_UNKNOWN", 404),
    (ManifestInvalid, "MANIFEST_INVALID", 400),
    (ManifestBlobUnknown, "MANIFEST_BLOB_UNKNOWN", 404),
    (BlobUnknown, "BLOB_UNKNOWN", 404),
    (UploadUnknown, "BLOB_UPLOAD_UNKNOWN", 404),
    (UploadInvalid, "BLOB_UPLOAD_INVALID", 400),
    (DigestInvalid, "DIGEST_INVALID", 400),
    (SizeInvalid, "SIZE_INVALID", 413),
    (PaginationInvalid, "PAGINATION_NUMBER_INVALID", 400),
    (TooManyRequests, "TOOMANYREQUESTS", 429),
)
