"""The reliability campaign: hostile inputs, each tried in a child process with limits of time and memory.

Each part is a module of this package, named as in `parts.PARTS`, with

    SIZE: int        cases of a whole campaign
    WHOLE: bool      whether all cases follow each other in one process (optional)
    SECONDS: int     limit of one case
    MOST_MB: int     of memory in one case; left out, 2048
    prepare(folder)  writes, once for each child process, what the cases start from
    attempt(chance, folder) -> str
                     tries one case, drawn with `chance` (a random.Random), and returns in a word or two how it ended;
                     raises `cases.Fault` for what must never happen

A case depends on the part, the seed and its number alone, so each can be tried again alone: the runner names it.
"""
