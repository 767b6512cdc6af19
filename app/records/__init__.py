"""Records: the searchable copies of manifests."""
