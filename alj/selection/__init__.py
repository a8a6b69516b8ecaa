"""Selectors: what to label next, as plain functions of evidence."""

from alj.selection.along_path import along_path
from alj.selection.committee import committee
from alj.selection.posterior_variance import posterior_variance
from alj.selection.random import random
from alj.selection.spaced import spaced
from alj.selection.trust_levels import trust_levels

SELECTORS = (random, spaced, committee, posterior_variance, trust_levels, along_path)
