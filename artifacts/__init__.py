"""Files and facts of the machine that the other packages share. It imports none of them."""
