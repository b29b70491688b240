"""Public names of this package, imported when they are first read."""

from ehrmeta.persistence.audit import (
    VerifiedLog as VerifiedLog,
    append_audit_record as append_audit_record,
    read_key as read_key,
    verify_audit_log as verify_audit_log,
)
from ehrmeta.persistence.bundle import read_bundle as read_bundle, write_bundle as write_bundle
