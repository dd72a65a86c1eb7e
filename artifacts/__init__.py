"""Files and machine facts that the other packages share. Imports none of them."""
