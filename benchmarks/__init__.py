"""Speed and size beside real peers, in the same run on the same machine. Judge the ratios."""
