// Sends requests with the JDK's HttpClient: java Client.java BASE CASE...
//
// A case is METHOD|PATH|NAME|VALUE|BODY, where NAME and VALUE (a header) and BODY may be empty. The
// cases are sent twice. With its defaults, the client offers an upgrade to HTTP/2 (h2c) at a plain http address.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Arrays;

public class Client {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int turn = 0; turn < 2; turn++) {
            for (String given : Arrays.copyOfRange(arguments, 1, arguments.length)) {
                String[] parts = given.split("\\|", -1);
                var body = parts[4].isEmpty() ? BodyPublishers.noBody() : BodyPublishers.ofString(parts[4]);
                var request = HttpRequest.newBuilder(URI.create(arguments[0] + parts[1]));
                if (!parts[2].isEmpty()) request.header(parts[2], parts[3]);
                client.send(request.method(parts[0], body).build(), BodyHandlers.ofString());
            }
        }
    }
}
