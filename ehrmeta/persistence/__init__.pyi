"""Public names of this package, imported when they are first read."""

from ehrmeta.persistence.bundle import read_bundle as read_bundle, write_bundle as write_bundle
