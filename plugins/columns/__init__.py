"""Where in a file its columns lie: branches of TTree, fields of RNTuple, columns of Parquet, data sets of HDF5."""
