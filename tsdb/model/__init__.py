"""What a series is: labels, samples, histograms, matchers, the `Source` protocol and the errors that all layers raise."""
