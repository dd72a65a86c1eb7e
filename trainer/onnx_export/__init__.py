"""Write generator files: export checkpoints, import weights of other tools, and optimize the graph for speed."""
