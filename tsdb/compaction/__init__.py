"""What happens to blocks later: merging, downsampling, deletion, rewriting, and the bucket's index."""
