/** One metric over the steps, drawn by uPlot. A noisy one (the loss of every batch) gets a smooth line on top. */
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import type { Point } from "../api/types";
import { metric, metricName } from "../ui/format";
import { cssColor, paletteVersion } from "../ui/theme";

interface Props {
  name: string;
  points: readonly Point[];
}

const HEIGHT_PX = 200;
const SMOOTH_FROM = 30;

export function Curve({ name, points }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [hovered, setHovered] = useState<number | null>(null);
  const isSmoothed = points.length >= SMOOTH_FROM;
  const palette = paletteVersion.value;
  const data = dataOf(points, isSmoothed);

  useEffect(() => {
    const box = frame.current;
    if (!box) return;
    const made = new uPlot(optionsFor(box.clientWidth, isSmoothed, setHovered), data, box);
    plot.current = made;
    const resizing = new ResizeObserver(() => made.setSize({ width: box.clientWidth, height: HEIGHT_PX }));
    resizing.observe(box);
    return () => {
      resizing.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [isSmoothed, palette]);
  useEffect(() => plot.current?.setData(data), [points]);

  const shown = (hovered === null ? undefined : points[hovered]) ?? points.at(-1);
  return (
    <figure class="curve">
      <figcaption>
        <span>{metricName(name)}</span>
        {shown && (
          <span class="curve-value">
            <small>step {shown.step.toLocaleString("en")}</small> <b>{metric(name, shown.value)}</b>
          </span>
        )}
      </figcaption>
      <div class="curve-plot" ref={frame} role="img" aria-label={describe(name, points)} />
    </figure>
  );
}

function dataOf(points: readonly Point[], isSmoothed: boolean): uPlot.AlignedData {
  const steps = points.map(({ step }) => step);
  const values = points.map(({ value }) => value);
  return isSmoothed ? [steps, values, smooth(values)] : [steps, values];
}

/** Exponential mean without the bias towards its start. */
function smooth(values: readonly number[], weight = 0.8): number[] {
  let sum = 0;
  let norm = 0;
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    norm = weight * norm + (1 - weight);
    return sum / norm;
  });
}

function optionsFor(width: number, isSmoothed: boolean, onHover: (index: number | null) => void): uPlot.Options {
  const accent = cssColor("--accent");
  const line: uPlot.Series = { stroke: accent, width: 2, points: { show: !isSmoothed, size: 5, fill: accent } };
  const noise: uPlot.Series = { stroke: cssColor("--accent-faint"), width: 1, points: { show: false } };
  const axis: uPlot.Axis = {
    stroke: cssColor("--ink-3"),
    font: '11px "Geist Variable", sans-serif',
    grid: { stroke: cssColor("--line"), width: 1 },
    ticks: { show: false },
  };
  return {
    width,
    height: HEIGHT_PX,
    legend: { show: false },
    scales: { x: { time: false } },
    cursor: { y: false, drag: { x: true, y: false } },
    padding: [8, 16, 0, 0],
    axes: [{ ...axis, grid: { show: false }, size: 28 }, { ...axis, size: 46 }],
    series: [{}, ...(isSmoothed ? [noise, line] : [line])],
    hooks: { setCursor: [(plot) => onHover(plot.cursor.idx ?? null)] },
  };
}

function describe(name: string, points: readonly Point[]): string {
  const [first, last] = [points[0], points.at(-1)];
  if (!first || !last) return `${metricName(name)}: nothing yet`;
  const [from, to] = [metric(name, first.value), metric(name, last.value)];
  return `${metricName(name)}: from ${from} at step ${first.step} to ${to} at step ${last.step}`;
}
