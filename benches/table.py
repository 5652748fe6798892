"""The figures as markdown."""
import os
import platform
import statistics
import subprocess

import programs

MEASURES = ("wall", "cpu", "peak", "written", "wire", "requests", "result")


def median(costs, measure):
    known = [value for cost in costs["counted"] if (value := getattr(cost, measure)) is not None]
    return statistics.median(known) if known else None


def best_peer(costs, measure):
    """The lowest median that a peer reached, or None."""
    known = [value for name in costs if name in programs.PEERS and (value := median(costs[name], measure))]
    return min(known) if known else None


def seconds(value):
    return f"{value * 1000:.1f} ms" if value < 0.1 else f"{value:.2f} s"


def megabytes(value):
    if value is None:
        return "–"
    return f"{value / 1e6:.1f} MB" if value < 1e8 else f"{value / 1e6:.0f} MB"


def ratio(value, best):
    return f" ({value / best:.2f})" if value is not None and best else ""


def head(found, images, work):
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(work)], capture_output=True, text=True).stdout.strip()
    named = ", ".join(f"{name} {program.version}".strip() for name, program in found.items())
    size = lambda name: f"{images[name]['bytes'] / 1e6:.0f} MB"
    return (f"{named}; docker-registry on loopback, everything on {kind}; {os.cpu_count()} × {model}, Linux {platform.release()}, "
            f"load {os.getloadavg()[0]:.1f} at the start.\n"
            f"Images: 11 layers {size('eleven')} ({size('eleven.tar')} as a raw docker-save archive), 60 layers {size('sixty')}, "
            f"3 platforms {size('platforms')}, one layer {size('big')}.\n"
            "Medians; in brackets the ratio to the best peer of the row's part. Peak memory is that of the whole process.\n")


def part(pair, results):
    costs = results[pair.name]
    lines = [f"### {pair.title} (`{pair.name}`)", "",
             "| program | wall | min–max | CPU | peak memory | written | on the wire | requests | result |",
             "|---|---|---|---|---|---|---|---|---|"]
    for name, of in costs.items():
        value = {measure: median(of, measure) for measure in MEASURES}
        walls = [cost.wall for cost in of["counted"]]
        lines.append(f"| {name} | {seconds(value['wall'])}{ratio(value['wall'], best_peer(costs, 'wall'))} "
                     f"| {seconds(min(walls))}–{seconds(max(walls))} "
                     f"| {seconds(value['cpu'])}{ratio(value['cpu'], best_peer(costs, 'cpu'))} | {megabytes(value['peak'])} "
                     f"| {megabytes(value['written'])} | {megabytes(value['wire'])} | {value['requests']:.0f} "
                     f"| {megabytes(value['result']) if value['result'] else '–'} |")
    return "\n".join(lines) + "\n"


def compared_with(pair, results, measure):
    """Whom the pair's goal speaks of, and the median to compare with."""
    costs = results.get(pair.of or pair.name) or results[pair.name]
    if pair.against in costs:
        return pair.against, median(costs[pair.against], measure)
    return "best peer", best_peer(costs, measure)


def goals(pairs, results):
    """Goal and outcome of each pair, where imgmv was measured."""
    lines = ["### Goals", "", "| pair | measure | goal | imgmv | |", "|---|---|---|---|---|"]
    for pair in pairs:
        if "imgmv" not in results[pair.name]:
            continue
        own = {measure: median(results[pair.name]["imgmv"], measure) for measure in MEASURES}
        for measure, goal in pair.goal.items():
            if measure == "requests":
                lines.append(f"| {pair.title} | requests | {goal} | {own[measure]:.0f} | {verdict(own[measure], goal)} |")
                continue
            whom, other = compared_with(pair, results, measure)
            if other:
                reached = own[measure] / other
                lines.append(f"| {pair.title} | {measure} | {goal} of {whom} | {reached:.2f} | {verdict(reached, goal)} |")
        lines.append(f"| {pair.title} | peak memory | 64 MiB | {own['peak'] / 2**20:.1f} MiB | {verdict(own['peak'], 64 << 20)} |")
    return "\n".join(lines) + "\n"


def other_build(pairs, results):
    """Each pair's ratios to the other build of imgmv, and of that build to itself: medians of the rounds' own ratios."""
    new, old, again = "imgmv", *programs.OTHER_BUILDS
    lines = ["### The other build", "", "| pair | wall new/old | wall old/old | CPU new/old | CPU old/old | peak memory |", "|---|---|---|---|---|---|"]
    for pair in pairs:
        costs = results[pair.name]
        if not {new, old, again} <= costs.keys():
            continue
        cells = [f"{by_rounds(costs, one, old, measure):.3f}" for measure in ("wall", "cpu") for one in (new, again)]
        peaks = " / ".join(f"{median(costs[name], 'peak') / 2**20:.1f}" for name in (new, old))
        lines.append(f"| {pair.name} | {' | '.join(cells)} | {peaks} MiB |")
    return "\n".join(lines) + "\n"


def by_rounds(costs, one, other, measure):
    rounds = zip(costs[one]["counted"], costs[other]["counted"])
    return statistics.median(getattr(a, measure) / max(getattr(b, measure), 1e-9) for a, b in rounds)


def verdict(reached, goal):
    return "reached" if round(reached, 2) <= goal else "missed"
