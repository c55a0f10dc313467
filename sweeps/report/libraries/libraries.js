// The parts of the libraries that the page uses. `npm ci && npm run build` writes bundle.js.
import DataTable from "datatables.net";
import { CustomChart, HeatmapChart, LineChart, ParallelChart } from "echarts/charts";
import {
  GridComponent,
  LegendScrollComponent,
  ParallelComponent,
  TooltipComponent,
  VisualMapContinuousComponent,
} from "echarts/components";
import { init, use, version } from "echarts/core";
import { CanvasRenderer } from "echarts/renderers";

use([
  CanvasRenderer,
  CustomChart,
  GridComponent,
  HeatmapChart,
  LegendScrollComponent,
  LineChart,
  ParallelChart,
  ParallelComponent,
  TooltipComponent,
  VisualMapContinuousComponent,
]);
window.libraries = { DataTable, init, echarts: version };
