"""Other forms of image sets than files in folders: label files, tars, Parquet, arrays, and several sources as one."""
