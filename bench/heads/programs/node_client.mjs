// Sends requests with a client of Node: node node_client.mjs LIBRARY BASE CASE...
//
// A case is METHOD|PATH|NAME|VALUE|BODY, where NAME and VALUE (a header) and BODY may be empty. The
// cases are sent twice. axios and undici are in node_modules of the current folder.
import { createRequire } from 'node:module';
import http from 'node:http';

const [library, base, ...given] = process.argv.slice(2);
const cases = given.map((text) => text.split('|'));
const require = createRequire(`${process.cwd()}/`);

const clients = {
  fetch: () => async (method, path, headers, body) =>
    (await fetch(base + path, { method, headers, body })).text(),
  http: () => {
    const agent = new http.Agent({ keepAlive: true });
    return (method, path, headers, body) =>
      new Promise((resolve, reject) => {
        const request = http.request(base + path, { method, headers, agent }, (answer) => {
          answer.resume();
          answer.on('end', resolve);
        });
        request.on('error', reject);
        request.end(body);
      });
  },
  axios: () => {
    const axios = require('axios');
    return (method, path, headers, body) =>
      axios.request({ method, url: base + path, headers, data: body, validateStatus: null });
  },
  undici: () => {
    const { request } = require('undici');
    return async (method, path, headers, body) =>
      (await request(base + path, { method, headers, body })).body.text();
  },
};

const ask = clients[library]();
for (const [method, path, name, value, body] of [...cases, ...cases]) {
  await ask(method, path, name ? { [name]: value } : {}, body || undefined);
}
process.exit();
