"""ESOINN as compiled host code: the rules of `esoinn_rules`, bit by bit the same network.

A network is the NamedTuple `alj.selection.esoinn.ClassNetwork`, written in place; connections are
kept in the order in which they were made. The `search` holds a copy of the weights in float32.
Importing this module imports numba, which compiles anew only when this very file has changed: touch
it after a change of `esoinn_search`.
"""

import numpy as np

from alj.selection.esoinn_rules import NEW, SLOWER
from alj.selection.esoinn_search import exact, nearest_two, square, threshold

DONE, MORE_NODES, MORE_NEIGHBORS = 0, 1, 2


@exact
def density(net, i):
    """h = S / N."""
    return net.points[i] / net.periods[i] if net.periods[i] > 0 else 0.0


@exact
def place(net, i, j):
    """Where j stands among the neighbors of i; -1 if it does not."""
    for k in range(net.degrees[i]):
        if net.neighbors[i, k] == j:
            return k
    return -1


@exact
def drop(net, i, j):
    """Remove j from the neighbors of i, which stay in order."""
    k = place(net, i, j)
    if k < 0:
        return
    last = net.degrees[i] - 1
    for m in range(k, last):
        net.neighbors[i, m] = net.neighbors[i, m + 1]
        net.ages[i, m] = net.ages[i, m + 1]
    net.neighbors[i, last] = -1
    net.ages[i, last] = 0
    net.degrees[i] = last


@exact
def set_new(net, i, j):
    """A connection of age 0, from i to j."""
    k = place(net, i, j)
    if k < 0:
        k = net.degrees[i]
        net.degrees[i] = k + 1
    net.neighbors[i, k] = j
    net.ages[i, k] = 0


@exact
def above_valley(low, highest, total, members):
    """Whether a class is no more than a foothill: `esoinn_rules.joined` for one of two."""
    mean = total / members
    steepness = 0.0 if highest <= 2.0 * mean else (0.5 if highest <= 3.0 * mean else 1.0)
    return low > steepness * highest


@exact
def summary(net, label):
    """The largest density of a class, the sum of all, and how many they are."""
    highest, total, members = -1.0, 0.0, 0
    for i in range(net.count[()]):
        if net.labels[i] == label:
            height = density(net, i)
            highest = max(highest, height)
            total += height
            members += 1
    return highest, total, members


@exact
def connect(net, a, b):
    """R5."""
    first, second = net.labels[a], net.labels[b]
    if first != NEW and second != NEW and first != second:
        low = min(density(net, a), density(net, b))
        highest, total, members = summary(net, first)
        if not above_valley(low, highest, total, members):
            highest, total, members = summary(net, second)
            if not above_valley(low, highest, total, members):
                drop(net, a, b)
                drop(net, b, a)
                return
        merged = min(first, second)
        for i in range(net.count[()]):
            if net.labels[i] == first or net.labels[i] == second:
                net.labels[i] = merged
    set_new(net, a, b)
    set_new(net, b, a)


@exact
def score(net, a, length):
    """R6 and R7."""
    if net.degrees[a] > 0:
        total = 0.0
        for k in range(net.degrees[a]):
            total += np.sqrt(square(net.weights[a], net.weights[net.neighbors[a, k]]))
        reach = 1.0 + total / net.degrees[a] / length
        net.points[a] += 1.0 / (reach * reach)
    if not net.won[a]:
        net.won[a] = True
        net.periods[a] += 1
    net.wins[a] += 1


@exact
def pull(net, i, x, divisor, columns):
    """W += (x - W) / divisor, also in the float32 copy."""
    for d in range(x.shape[0]):
        net.weights[i, d] += (x[d] - net.weights[i, d]) / divisor
        columns[d, i] = net.weights[i, d]


@exact
def win(net, a, b, x, length, search):
    """R4 to R8."""
    for k in range(net.degrees[a]):
        j = net.neighbors[a, k]
        net.ages[a, k] += 1
        net.ages[j, place(net, j, a)] += 1
    connect(net, a, b)
    score(net, a, length)
    pull(net, a, x, net.wins[a], search.columns)
    for k in range(net.degrees[a]):
        pull(net, net.neighbors[a, k], x, SLOWER * net.wins[a], search.columns)


@exact
def insert(net, x, columns):
    """R3; all other entries of a free row are those of a new node already."""
    i = net.count[()]
    for d in range(x.shape[0]):
        net.weights[i, d] = x[d]
        columns[d, i] = x[d]
    net.born[i] = net.signals[()]
    net.count[()] = i + 1


@exact
def relabel(net, heights):
    """R10 (i). Returns the number of labels."""
    count = net.count[()]
    up = np.empty(count, np.int64)
    labels = 0
    for i in range(count):
        up[i] = i
        for k in range(net.degrees[i]):
            j = net.neighbors[i, k]
            top = up[i]
            if heights[j] > heights[top] or (heights[j] == heights[top] and j < top):
                up[i] = j
        if up[i] == i:
            net.labels[i] = labels
            labels += 1
    for i in range(count):
        top = i
        while up[top] != top:
            top = up[top]
        net.labels[i] = net.labels[top]
    return labels


@exact
def judge(net, heights, labels):
    """R10 (ii); `parent` leads from a label to the one that it was merged into."""
    count = net.count[()]
    highest, total = np.full(labels, -1.0), np.zeros(labels)
    members, parent = np.zeros(labels, np.int64), np.arange(labels)
    for i in range(count):
        label = net.labels[i]
        highest[label] = max(highest[label], heights[i])
        total[label] += heights[i]
        members[label] += 1
    for i in range(count):
        k = 0
        while k < net.degrees[i]:
            j = net.neighbors[i, k]
            k += 1
            if j < i:
                continue
            p, q = root(parent, net.labels[i]), root(parent, net.labels[j])
            if p == q:
                continue
            p, q = min(p, q), max(p, q)
            low = min(heights[i], heights[j])
            if above_valley(low, highest[p], total[p], members[p]) or above_valley(
                low, highest[q], total[q], members[q]
            ):
                parent[q] = p
                highest[p] = max(highest[p], highest[q])
                total[p] += total[q]
                members[p] += members[q]
            else:
                drop(net, i, j)
                drop(net, j, i)
                k -= 1
    for i in range(count):
        net.labels[i] = root(parent, net.labels[i])


@exact
def root(parent, label):
    """The label that this one was merged into, over any number of mergers."""
    while parent[label] != label:
        label = parent[label]
    return label


@exact
def remove_noise(net, heights, two, one, columns):
    """R10 (iii)."""
    count = net.count[()]
    total = 0.0
    for i in range(count):
        total += heights[i]
    mean = total / count
    number = np.full(count, -1)
    left = 0
    for i in range(count):
        degree = net.degrees[i]
        noise = degree == 0
        noise |= degree == 1 and heights[i] < one * mean
        noise |= degree == 2 and heights[i] < two * mean
        if not noise:
            number[i] = 0
            left += 1
    while left < min(count, 2):
        densest = -1
        for i in range(count):
            if number[i] < 0 and (densest < 0 or heights[i] > heights[densest]):
                densest = i
        number[densest] = 0
        left += 1
    if left == count:
        return
    left = 0
    for i in range(count):
        if number[i] == 0:
            number[i] = left
            left += 1
    for i in range(count):
        if number[i] >= 0:
            carry(net, i, number, columns)
    for i in range(left, count):
        clear(net, i, columns)
    net.count[()] = left


@exact
def carry(net, i, number, columns):
    """Move node i to its new row, with the neighbors that are left under their new numbers."""
    to = number[i]
    for d in range(net.weights.shape[1]):
        net.weights[to, d] = net.weights[i, d]
        columns[d, to] = columns[d, i]
    net.labels[to], net.wins[to], net.points[to] = net.labels[i], net.wins[i], net.points[i]
    net.periods[to], net.won[to], net.born[to] = net.periods[i], net.won[i], net.born[i]
    degree = 0
    for k in range(net.degrees[i]):
        j = number[net.neighbors[i, k]]
        if j >= 0:
            net.neighbors[to, degree] = j
            net.ages[to, degree] = net.ages[i, k]
            degree += 1
    net.neighbors[to, degree:] = -1
    net.ages[to, degree:] = 0
    net.degrees[to] = degree


@exact
def clear(net, i, columns):
    """Make a row that of a new node."""
    net.weights[i] = 0.0
    columns[:, i] = np.float32(0.0)
    net.labels[i], net.wins[i], net.points[i] = NEW, 0, 0.0
    net.periods[i], net.won[i], net.born[i] = 0, False, 0
    net.neighbors[i], net.ages[i], net.degrees[i] = -1, 0, 0


@exact
def settle(net, two, one, columns):
    """R10."""
    heights = np.empty(net.count[()])
    for i in range(heights.shape[0]):
        heights[i] = density(net, i)
    judge(net, heights, relabel(net, heights))
    remove_noise(net, heights, two, one, columns)
    net.won[:] = False


@exact
def present(net, patterns, begin, rules, search):
    """R1 to R10 for the patterns from `begin` on: how many are behind, and what was too small.

    The pattern for which there was no room has left no trace.
    """
    capacity, width = net.neighbors.shape
    for row in range(begin, patterns.shape[0]):
        x = patterns[row]
        if net.count[()] == capacity:
            return row, MORE_NODES
        a, b, nearest, second = nearest_two(x, net.weights, net.count[()], search)
        near = np.sqrt(nearest) <= threshold(net, a, search)
        near = near and np.sqrt(second) <= threshold(net, b, search)
        if near and max(net.degrees[a], net.degrees[b]) == width and place(net, a, b) < 0:
            return row, MORE_NEIGHBORS
        net.signals[()] += 1
        if near:
            win(net, a, b, x, rules.length, search)
        else:
            insert(net, x, search.columns)
        k = 0
        while k < net.degrees[a]:
            if net.ages[a, k] > rules.oldest:
                j = net.neighbors[a, k]
                drop(net, a, j)
                drop(net, j, a)
            else:
                k += 1
        if net.signals[()] % rules.period == 0:
            settle(net, rules.two, rules.one, search.columns)
    return patterns.shape[0], DONE
