"""The tasks that ship: GSM8K, CaseHOLD, SNIPS, TREC, SST-2."""
