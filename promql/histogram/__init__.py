"""Native histograms: arithmetic, layout, windows and what functions read of them."""
