"""Public names of this package, imported when they are first read."""

from ehrmeta.serving.folder import score_folder as score_folder
from ehrmeta.serving.score import score_partition as score_partition
