"""The demonstration: a data set, an origin and an analysis that shows what JCache does on this machine."""
