"""What the tests and the programs beside them share.

oracles              the float64 reference, plain PyTorch, and inputs and options of attention() by name
models               tiny models with their tokenizers, saved as the folders that a user would open
transformers_models  tiny models of transformers, and their outputs with eager attention and with regard
families             a tiny model of any architecture of transformers, and inputs for it
readings             readings of random numbers, with every kind of mask
browser              Chromium: opens the viewer's pages and waits until they are drawn
guides               the pages of docs/, and their Python
data                 real data that is not part of the repository
areas                which area each file of tests belongs to, and which tests are slow
"""
