"""Selectors: what to label next, as plain functions of evidence."""

from alj.selection.along_path import along_path
from alj.selection.committee import committee
from alj.selection.diversity import kmeans_pp, lcmd, max_dist
from alj.selection.esoinn_quota import esoinn_quota
from alj.selection.optimal_design import d_optimal, qs1, qs2, qs3
from alj.selection.property_uniform import one_trajectory, property_uniform
from alj.selection.random import random
from alj.selection.spaced import spaced
from alj.selection.trust_levels import trust_levels

SELECTORS = (
    random,
    one_trajectory,
    spaced,
    property_uniform,
    committee,
    d_optimal,
    qs1,
    qs2,
    qs3,
    max_dist,
    lcmd,
    kmeans_pp,
    trust_levels,
    along_path,
    esoinn_quota,
)
