import { defineConfig } from "vite";

/**
 * Builds the pages into the gateway's package, which serves them: static/index.html for every page, static/assets/*.
 * Nothing is inlined as a data: address, so that the gateway's content security policy can stay at 'self'.
 * `npm run dev` serves the sources and passes the API on to a running stack.
 */
export default defineConfig({
  build: {
    outDir: "../nanochat_gateway/static",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    cssTarget: ["chrome105", "safari15.4", "firefox110"],
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8000", "/health": "http://127.0.0.1:8000" } },
});
